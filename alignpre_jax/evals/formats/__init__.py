"""Other people's files: their scenarios and their tasks, as ours."""
