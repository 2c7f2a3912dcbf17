"""Studies: results, tables, figures, READMEs."""
