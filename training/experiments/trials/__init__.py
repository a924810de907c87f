"""One trial of each kind of certificate: was it false? A file for each kind of audit."""
