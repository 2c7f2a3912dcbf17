"""Pictures, tables and pages: what a run knows, shown. Figures are objects, so that no global state is touched."""
