# Expectations over activations: of their values, and of their slopes, at pairs of normal variables.

"the two variances that belong to every entry: of position p of one sample and of position q of the other"
function ends(k::Covariance, which::Symbol, all::Batches)
    own(c) = [c.nngp[p, p, i] for p in axes(c.nngp, 1), i in axes(c.nngp, 3)]
    left, right = own(which === :second ? all.second : all.first), own(which === :first ? all.first : all.second)
    n = size(left, 2)
    pairs = axes(k.nngp, 3)
    i(pair) = which === :across ? mod1(pair, n) : pair
    j(pair) = which === :across ? cld(pair, n) : pair
    return ([left[p, i(pair)] for p in axes(k.nngp, 1), _ in axes(k.nngp, 2), pair in pairs],
        [right[q, j(pair)] for _ in axes(k.nngp, 1), q in axes(k.nngp, 2), pair in pairs])
end

"all kernels times a function of each of the two variances"
function rescaled(k::Batches, f)
    function one(c, which)
        d1, d2 = ends(c, which, k)
        return Covariance(c.nngp .* f(d1) .* f(d2), c.ntk .* f(d1) .* f(d2), c.space)
    end
    return exact(Batches(one(k.first, :first), one(k.second, :second), one(k.across, :across), k.same))
end

activated(::typeof(identity), k::Batches) = k
function activated(σ, k::Batches)
    function one(c, which)
        d1, d2 = ends(c, which, k)
        found = expectations.(Ref(σ), d1, d2, c.nngp)
        return Covariance(first.(found), c.ntk .* last.(found), c.space)
    end
    return exact(Batches(one(k.first, :first), one(k.second, :second), one(k.across, :across), k.same))
end

"""
    expectations(σ, d1, d2, k) -> (E[σ(u) σ(v)], E[σ'(u) σ'(v)])

Over normal u and v of variances `d1` and `d2` and covariance `k`.
"""
expectations(::typeof(NNlib.relu), d1, d2, k) = bent(0.0, 1.0, d1, d2, k)
expectations(::typeof(NNlib.leakyrelu), d1, d2, k) = bent(0.01, 1.0, d1, d2, k)
expectations(::typeof(abs), d1, d2, k) = bent(-1.0, 1.0, d1, d2, k)
expectations(::typeof(NNlib.elu), d1, d2, k) = halves(1.0, 1.0, d1, d2, k)
expectations(::typeof(NNlib.selu), d1, d2, k) = halves(NNlib.selu_λ, NNlib.selu_α, d1, d2, k)
expectations(σ, d1, d2, k) = smooth(σ, d1, d2, k)

"two lines that meet at 0, of slopes a below and b above: arc-cosine kernels (Cho and Saul, 2009)"
function bent(a, b, d1, d2, k)
    size = sqrt(d1) * sqrt(d2)
    d1 == d2 && (size = d1)
    iszero(size) && return (0.0, (a^2 + b^2) / 2 - (b - a)^2 / 4)
    angle = atan(sqrt(max((size - k) * (size + k), 0.0)), k)
    up = (size * sin(angle) + (π - angle) * k) / 2π  # both above 0, and both below
    crossed = (size * sin(angle) - angle * k) / 2π  # one above, the other below
    return ((a^2 + b^2) * up - 2a * b * crossed, ((a^2 + b^2) * (π - angle) + 2a * b * angle) / 2π)
end

"""
    smooth(σ, d1, d2, k)

The trapezoidal rule over both variables, which converges faster than any power for functions that are analytic near the real
line. Its step follows the poles of `tanh` and of the logistic function, which come nearer as variances grow.
"""
function smooth(σ, d1, d2, k)
    s1, s2 = sqrt(d1), sqrt(d2)
    ρ = iszero(s1 * s2) ? 0.0 : clamp(k / (s1 * s2), -1.0, 1.0)
    d1 == d2 == k && (ρ = 1.0)
    rest = sqrt((1 - ρ) * (1 + ρ))
    h = 0.25 / max(1.0, s1, s2)
    nodes = -9.0:h:9.0
    weights = @. exp(-nodes^2 / 2) * h / sqrt(2π)
    both(z) = (σ(z), ForwardDiff.derivative(σ, z))
    value = slope = 0.0
    for (z, w) in zip(nodes, weights)
        f, g = both(s1 * z)
        if iszero(rest)
            fv, gv = both(s2 * ρ * z)
        else
            fv = gv = 0.0
            for (y, wy) in zip(nodes, weights)
                a, b = both(s2 * (ρ * z + rest * y))
                fv += wy * a
                gv += wy * b
            end
        end
        value += w * f * fv
        slope += w * g * gv
    end
    return (value, slope)
end

"""
    halves(λ, α, d1, d2, k)

λ z above 0 and λ α (exp(z) - 1) below. Given u, the expectation over v has a closed form; that over u is taken on either side
of 0, on panels that shrink towards 0, where the inner expectation bends sharply if u and v are nearly equal.
"""
function halves(λ, α, d1, d2, k)
    (iszero(d1) || iszero(d2)) && return (0.0, λ^2 * edge(α, d1) * edge(α, d2))
    s1, s2 = sqrt(d1), sqrt(d2)
    ρ = d1 == d2 == k ? 1.0 : clamp(k / (s1 * s2), -1.0, 1.0)
    rest = s2 * sqrt((1 - ρ) * (1 + ρ))
    value = slope = 0.0
    for (z, w) in half_line(), side in (-1, 1)
        u = side * s1 * z
        f, g = side > 0 ? (u, 1.0) : (α * expm1(u), α * exp(u))
        fv, gv = expected_half(α, s2 * ρ * side * z, rest)
        value += w * f * fv
        slope += w * g * gv
    end
    return (λ^2 * value, λ^2 * slope)
end

"the mean slope over a normal variable of variance d; for d = 0 both sides count equally"
edge(α, d) = iszero(d) ? (1 + α) / 2 : last(expected_half(α, 0.0, sqrt(d)))

"E[h(v)] and E[h'(v)] of v normal with mean m and deviation s, for h(z) = z above 0 and α (exp(z) - 1) below"
function expected_half(α, m, s)
    if iszero(s)
        return m > 0 ? (m, 1.0) : m < 0 ? (α * expm1(m), α * exp(m)) : (0.0, (1 + α) / 2)
    end
    above = normal_below(m / s)
    tilted = exp(m + s^2 / 2) * normal_below(-(m + s^2) / s)
    line = m * above + s * exp(-(m / s)^2 / 2) / sqrt(2π)
    return (line + α * (tilted - normal_below(-m / s)), above + α * tilted)
end

normal_below(z) = erfc(-z / sqrt(2)) / 2

"nodes and weights, times the normal density, on the positive half of the line: Gauss-Legendre on panels"
function half_line()
    edges = [0.0; 2.0 .^ (-40:0); 1.5:0.5:9.0]
    x, w = gauss_legendre(16)
    found = Tuple{Float64,Float64}[]
    for (a, b) in zip(edges[1:(end - 1)], edges[2:end]), (t, v) in zip(x, w)
        z = (a + b) / 2 + (b - a) / 2 * t
        push!(found, (z, v * (b - a) / 2 * exp(-z^2 / 2) / sqrt(2π)))
    end
    return found
end

"nodes and weights on [-1, 1] from the eigenvalues of the Jacobi matrix (Golub and Welsch, 1969)"
function gauss_legendre(n::Integer)
    values, vectors = eigen(SymTridiagonal(zeros(n), [i / sqrt(4i^2 - 1) for i in 1:(n - 1)]))
    return values, 2 .* vectors[1, :] .^ 2
end
