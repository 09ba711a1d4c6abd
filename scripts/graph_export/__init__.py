"""What export_graph.py is made of: capture (torch.export to plain operators), decompose (what the target lacks), grouping (operators to
nodes), files, proof."""
