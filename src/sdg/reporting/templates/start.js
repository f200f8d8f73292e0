report(document);
