"""The costs of a prediction: operations, memory traffic and joules, and the table of
`describe`."""
