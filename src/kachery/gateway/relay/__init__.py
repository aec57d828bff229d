"""The relay: which resources are connected, and the files that they bring while somebody reads them."""
