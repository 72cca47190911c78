"""What a run is: its folder, its training, its predictions and how they are measured."""
