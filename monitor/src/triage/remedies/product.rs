//! Which product a process is, by its name.

/// Names of processes that tell a product; a name that begins with one of these counts as well.
const NAMES: [(&str, &str); 19] = [
    ("angie", "nginx"),
    ("apache2", "Apache httpd"),
    ("caddy", "Caddy"),
    ("dotnet", "Kestrel"),
    ("envoy", "Envoy"),
    ("gunicorn", "gunicorn"),
    ("haproxy", "HAProxy"),
    ("httpd", "Apache httpd"),
    ("java", "Java"),
    ("nginx", "nginx"),
    ("node", "Node.js"),
    ("openresty", "nginx"),
    ("php-fpm", "PHP-FPM"),
    ("puma", "Puma"),
    ("python", "Python"),
    ("ruby", "Puma"),
    ("traefik", "Traefik"),
    ("uvicorn", "uvicorn"),
    ("wrk:worker", "Envoy"),
];

/// The product a process is, where its name tells.
pub(super) fn product(process: &str) -> Option<&'static str> {
    NAMES.iter().find(|(name, _)| process.starts_with(name)).map(|(_, product)| *product)
}

/// Whether a remedy for `software` may apply to a process of this product: several run in one interpreter.
pub(super) fn runs(product: &str, software: &str) -> bool {
    match product {
        "Python" => ["gunicorn", "uvicorn"].contains(&software),
        "Java" => ["Tomcat", "Spring Boot", "Jetty"].contains(&software),
        product => product == software,
    }
}
