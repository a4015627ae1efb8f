"""Generated code of the public API; the .proto files are the source."""
