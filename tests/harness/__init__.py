"""What tests stand on: clocks that are set by hand, real servers, principals."""
