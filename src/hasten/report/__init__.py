"""Values to text, HTML and JSON. Nothing here measures, decides or prints."""
