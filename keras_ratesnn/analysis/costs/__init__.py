"""What a prediction costs: operations, memory traffic and joules, and the table of
`describe`."""
