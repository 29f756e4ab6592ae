"""Running a recorded run anew in a clean folder, and saying whether it comes out the same."""
