"""Scripts that mirror those of hloc, with a compressed map in the middle."""
