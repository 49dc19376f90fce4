"""One offline HTML page that shows a run, its bundle and its measurements."""
