"""What `mtk validate` does with its inputs: facts about everything in them, and what is wrong with that."""
