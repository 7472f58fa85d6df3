"""Files that are whole or absent, and the HDF5 data set: written, opened, fed to Keras in batches.

May import preprocessing and what that may."""
