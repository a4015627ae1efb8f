"""The Ray Serve application that answers interpret, edit and sample over gRPC from a bundle."""
