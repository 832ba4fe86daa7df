"""Features: the same for training and for serving. Feature views are the tables of the layer `features`; the online
store is fed by the stream, and by materialisation."""
