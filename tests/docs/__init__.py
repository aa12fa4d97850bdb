"""What the pages say is run: code blocks, commands, links, tables, and the map of the code."""
