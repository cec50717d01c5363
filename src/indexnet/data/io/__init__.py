"""Files of images, masks and trimaps, and what keeps them decoded."""
