def markdown(place): return ""
