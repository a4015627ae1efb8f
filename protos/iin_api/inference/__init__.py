"""Generated code of the Open Inference Protocol; see grpc_service.proto."""
