"""Reading and writing hloc's and COLMAP's files. No algorithm lives here."""
