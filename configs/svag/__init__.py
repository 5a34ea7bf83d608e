"""SGD and what stands for it (Li, Malladi and Arora 2021); docs/svag.md has what they come to."""
