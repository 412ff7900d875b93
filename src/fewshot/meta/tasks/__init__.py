"""What is learned: a file a kind of experiment, with its distribution over tasks."""
