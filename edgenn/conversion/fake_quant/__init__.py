"""int8 simulated in Keras: what the device will compute, in a network that can be measured, mended and trained."""
