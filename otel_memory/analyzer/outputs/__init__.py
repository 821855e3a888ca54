"""Where alert changes go: a file for each destination behind one small protocol."""
