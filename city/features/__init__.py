"""Features, which are the same for training and for serving.

Feature views are the tables of the layer `features`. The stream and materialisation write the online store.
"""
