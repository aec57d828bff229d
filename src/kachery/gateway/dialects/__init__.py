"""One module for each protocol that the gateway speaks; they translate, and decide nothing."""
