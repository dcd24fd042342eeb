"""What programs do with their arguments: data in `data/*.yaml`, read by `loader`, applied by `rules`. Pure but the loader."""
