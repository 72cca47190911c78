"""What a GPU says of fastst: `python -m bench.gpu`."""
