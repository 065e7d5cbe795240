"""What is measured with queries of known pose."""
