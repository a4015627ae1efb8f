"""Networks other than T: what is interpreted, what judges its pictures, and what training needs beside them."""
