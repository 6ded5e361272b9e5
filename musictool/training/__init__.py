"""Training: recipes, the loop, what is learned (`tasks`) and from what (`data`)."""
