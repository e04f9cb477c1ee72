"""Reports for readers: tables, plots and HTML pages."""
