"""Stage 3: long thoughts from a teacher. One module for each way to get them (paper, Figure 2)."""
