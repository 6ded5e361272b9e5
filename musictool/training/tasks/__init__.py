"""What models are trained to do, one task a file; `musictool.training.task` says what a task is."""
