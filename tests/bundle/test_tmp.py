def test_a(digits_bundle):
    import json; m=json.load(open(digits_bundle/"manifest.json")); print(json.dumps(m,indent=1)[:9000]); print([(p.name,p.stat().st_size) for p in digits_bundle.rglob("*")])
