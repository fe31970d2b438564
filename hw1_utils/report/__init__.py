"""Tables, figures, the text and the page: views of results. Nothing here trains."""
