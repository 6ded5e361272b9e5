"""What models learn from: pairs of sound and notes, and token corpora; read, made, shuffled, split."""
