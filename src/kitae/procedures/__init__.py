"""What needs several of the floor below: trials, baselines, prediction."""
