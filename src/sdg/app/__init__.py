"""`sdg app`: look at pictures, correct, repair and compare in a browser, on this machine; through Gradio."""
