"""What joins the stages: nodes, their status, their execution."""
