"""A folder of videos by what moves in them: neighbours and clusters, as one page."""
