"""Where the images come from. One file a data set."""
