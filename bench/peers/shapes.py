"""What the models of the comparison take, for programs without torch."""
SHAPES = {"plain_cnn": (3, 16, 16), "mobilenet_v2": (3, 64, 64)}  # of a sample
