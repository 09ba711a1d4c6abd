"""What export_graph.py is made of: capture (torch.export to plain operators), grouping (operators to nodes), files, proof."""
