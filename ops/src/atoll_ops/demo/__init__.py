"""`./atoll demo`: a day of real orders through the front door, and the sum of what was sold beside the file's own."""
