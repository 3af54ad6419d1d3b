"""Several runs side by side: what differs in their configs, and what that does to their results."""
