# A bundle as an image, for components/bundle-image-volume. The folder of the bundle is the context:
#   docker build -f deploy/image/bundle.Dockerfile -t registry.example.com/iin-bundle:digits build/demo/bundle
FROM scratch
# Workers read it as user 1000, whatever umask it was written under.
COPY --chmod=755 . /
